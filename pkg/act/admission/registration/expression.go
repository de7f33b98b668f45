package registration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/celery-hpa/celery-hpa/pkg/decide/target"
)

// targetsCondition is the name of the match condition that lists our targets.
const targetsCondition = "targets"

// longestExpression is what the API server compiles at the most, in characters
// (github.com/google/cel-go, parser/parser.go, NewParser: expressionSizeCodePointLimit).
const longestExpression = 100_000

// targetsExpression is the CEL expression of the match condition that is true for the
// Deployments among the targets, and for their scale, and false for all else. Where
// that would be too long, after some 1,500 Deployments, it is true for every
// Deployment of their namespaces, which Victims can tell apart; there can be too many
// of those as well.
//
// It is the same for the same Deployments, in whatever order and however many HPAs
// scale one.
func targetsExpression(targets []target.Target) (string, error) {
	var names, namespaces []string
	for _, t := range targets {
		if t.IsDeployment() {
			names = append(names, t.Namespace+"/deployments/"+t.Name)
			namespaces = append(namespaces, t.Namespace)
		}
	}
	if len(names) == 0 {
		return "false", nil
	}
	expressions := []string{
		"(request.namespace + '/' + request.resource.resource + '/' + request.name) in " + list(names),
		"request.namespace in " + list(namespaces),
	}
	for _, e := range expressions {
		if len(e) <= longestExpression { // which is ASCII
			return e, nil
		}
	}
	return "", fmt.Errorf("a match condition has no room for the namespaces of %d Deployments", len(names))
}

// What of a request tells the targets of the webhooks zero and notice, and whose it
// is. The webhook zero refuses where a condition cannot be evaluated: a field that is
// missing is an empty text here, never an error.
const (
	namedTarget = "(request.?namespace.orValue('') + '/' + request.?resource.?resource.orValue('') + '.' + " +
		"request.?resource.?group.orValue('') + '/' + request.?name.orValue('')) in "
	byUser = "request.?userInfo.?username.orValue('') in "
)

// namesExpression is true for the targets with these names (see guarded.name), and
// false for all else. It lists as many as there is room for, the first ones, and
// returns how many: some 1,500.
//
// There is no falling back to their namespaces, as targetsExpression does: while
// celery-hpa is away the webhook zero refuses, and nobody else's scaling may depend on
// it. A target that is left out is looked at by the zero-scaler all the same, though
// not guarded against the HPA of minReplicas 0.
func namesExpression(names []string) (expression string, listed int) {
	if len(names) == 0 {
		return "false", 0
	}
	room := longestExpression - len(namedTarget+"[]")
	for listed < len(names) {
		if room -= len(quote(names[listed]) + ", "); room < 0 {
			break
		}
		listed++
	}
	return namedTarget + list(slices.Clone(names[:listed])), listed
}

// list writes a list of CEL that has each text once, sorted.
func list(texts []string) string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	for i, text := range texts {
		texts[i] = quote(text)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// quote writes a string literal of CEL, in ASCII: CEL knows every escape that Go
// writes (https://github.com/google/cel-spec/blob/master/doc/langdef.md, "String and
// Bytes Values").
func quote(text string) string { return strconv.QuoteToASCII(text) }
