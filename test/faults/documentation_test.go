package faults_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// documentation is the text of docs/brokers-file.md.
func documentation(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/brokers-file.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDocumentedBrokersAreValid(t *testing.T) {
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(documentation(t), -1)
	if len(examples) != 2 {
		t.Errorf("%d examples, want 2", len(examples))
	}
	for _, example := range examples {
		if _, err := v1alpha1.DecodeBrokers([]byte(example[1])); err != nil {
			t.Errorf("%s:\n%v", example[1], err)
		}
	}
}

func TestDocumentedURLsAreValid(t *testing.T) {
	urls := regexp.MustCompile("(?m)^\\| `(\\S+://\\S+)` \\|").FindAllStringSubmatch(documentation(t), -1)
	if len(urls) != 12 {
		t.Errorf("%d URLs, want 12", len(urls))
	}
	for _, url := range urls {
		if _, err := celery.ParseBrokerURL(url[1]); err != nil {
			t.Errorf("%s: %v", url[1], err)
		}
	}
}

// documentedUsers returns the rules of the documented ACL SETUSER lines, with a
// password.
func documentedUsers(t *testing.T, password string) [][]string {
	t.Helper()
	var users [][]string
	for line := range strings.Lines(documentation(t)) {
		if rules, found := strings.CutPrefix(line, "ACL SETUSER celery-hpa "); found {
			users = append(users, strings.Fields(strings.Replace(rules, "PASSWORD", password, 1)))
		}
	}
	if len(users) != 2 {
		t.Fatalf("%d ACL SETUSER lines, want one for every queue and one for listed queues", len(users))
	}
	return users
}

// documentedCommands returns the arguments of the documented rabbitmqctl lines,
// with a password, for the virtual host "/".
func documentedCommands(t *testing.T, password string) [][]string {
	t.Helper()
	var commands [][]string
	for line := range strings.Lines(documentation(t)) {
		if args, found := strings.CutPrefix(line, "rabbitmqctl "); found {
			args = strings.NewReplacer("PASSWORD", password, "VHOST", "/", "'", "").Replace(args)
			commands = append(commands, strings.Fields(args))
		}
	}
	if len(commands) != 3 {
		t.Fatalf("%d rabbitmqctl lines, want one for the user, its permissions and its tags each", len(commands))
	}
	return commands
}
