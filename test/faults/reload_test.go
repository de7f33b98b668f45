package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/celery-hpa/celery-hpa/test/servers"
)

func TestBrokersAreAddedChangedAndRemoved(t *testing.T) {
	t.Parallel()
	one, two := servers.StartRedis(t, servers.RedisOptions{}), servers.StartRedis(t, servers.RedisOptions{})
	publish(t, one, "celery", 1)
	publish(t, two, "celery", 2)
	publish(t, two, "other", 3)
	prod := func(server *servers.Redis) string {
		return document("default", "prod", atURL(server.URL(0))+", "+often)
	}
	stage := document("stage", "stage", atURL(two.URL(0))+", "+often)
	p := run(t, prod(one), nil)
	p.awaitTasks(t, "celery", "1")

	w := p.watchTasks(t, "celery")
	p.write(t, "brokers.yaml", prod(one)+stage)
	askStage := func() answer { return p.ask("stage", "celery_queue_tasks", "queue=celery") }
	await(t, "the added broker", askStage, func(a answer) bool { return a.is("stage/celery", "2") })
	for _, a := range w.end() {
		if !a.is("prod/celery", "1") {
			t.Errorf("the broker that stayed as it was answered %s, want 1", a)
		}
	}

	p.write(t, "brokers.yaml", prod(two)+stage)
	p.awaitTasks(t, "celery", "2")
	p.write(t, "brokers.yaml", prod(two))
	await(t, "the broker to be gone", askStage, func(a answer) bool { return a.says(404, "namespace stage has no CeleryBroker") })
	if text := p.metrics().Message; strings.Contains(text, `broker="stage"`) {
		t.Errorf("/metrics still has series of the broker that is gone:\n%s", text)
	}

	// What is not listed any more is not served any more.
	p.write(t, "brokers.yaml", document("default", "prod", atURL(two.URL(0))+", queues: [{name: other}], "+often))
	await(t, "the queue to be gone", func() answer { return p.tasks("celery") }, func(a answer) bool { return a.says(404, "other") })
	p.awaitTasks(t, "other", "3")
}

func TestBadBrokersFileLeavesAllAsItWas(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, servers.RedisOptions{})
	publish(t, server, "celery", 1)
	good := document("default", "prod", atURL(server.URL(0))+", "+often)
	p := run(t, good, nil)
	p.hides(t, "hunter2")
	p.awaitTasks(t, "celery", "1")
	p.awaitMetric(t, "celery_hpa_config_last_reload_successful 1")

	bad := []struct{ file, complaint string }{
		{strings.TrimSuffix(good, "}\n"), "line "},
		{"", "the file holds no CeleryBroker"},
		{document("default", "prod", "ulr: {}"), "spec.ulr: Forbidden: unknown field"},
		{good + good, "document 1 has a broker of this name"},
		{document("a", "b", atURL("redis://:hunter2@h")), "holds a password"},
	}
	for i, tt := range bad {
		p.write(t, "brokers.yaml", tt.file)
		await(t, "the complaint "+tt.complaint, p.complaints, func(a answer) bool { return a.Code == i+1 && strings.Contains(a.Message, tt.complaint) })
		p.awaitMetric(t, "celery_hpa_config_last_reload_successful 0")
	}
	if err := os.Remove(filepath.Join(p.folder, "brokers.yaml")); err != nil {
		t.Fatal(err)
	}
	await(t, "the complaint about no file", p.complaints, func(a answer) bool { return strings.Contains(a.Message, "no such file or directory") })
	publish(t, server, "celery", 1)
	p.awaitTasks(t, "celery", "2")

	p.write(t, "brokers.yaml", good)
	p.awaitMetric(t, "celery_hpa_config_last_reload_successful 1")
	p.awaitTasks(t, "celery", "2")
	if n := p.complaints().Code; n != len(bad)+1 {
		t.Errorf("bad files were logged %d times, want each once: %d", n, len(bad)+1)
	}
}

// complaints is the log with the number of times that it calls a file bad.
func (p *program) complaints() answer {
	text := p.log.String()
	return answer{Code: strings.Count(text, "Brokers file or a file that it refers to is bad"), Message: text}
}
