package rabbitmq

import "testing"

func TestTheManagementAPIIsWhereItUsuallyIs(t *testing.T) {
	for url, want := range map[string]string{
		"amqp://rabbitmq":                    "http://rabbitmq:15672",
		"amqp://u:p@rabbitmq:1234/vhost":     "http://rabbitmq:15672",
		"amqps://rabbitmq:1234":              "https://rabbitmq:15671",
		"pyamqp://[::1]":                     "http://[::1]:15672",
		"amqp://rabbitmq?ssl_cert_reqs=none": "https://rabbitmq:15671",
	} {
		cfg := Config{URL: url}
		endpoints, err := cfg.endpoints()
		if err != nil {
			t.Fatal(err)
		}
		s, err := cfg.management(endpoints[0])
		if err != nil || s.URL != want {
			t.Errorf("%s: %s (%v), want %s", url, s.URL, err, want)
		}
	}
}

func TestWhoAsksTheManagementAPI(t *testing.T) {
	for name, c := range map[string]struct {
		cfg            Config
		user, password string
	}{
		"the user of the URL":          {Config{URL: "amqp://u:p%40ss@h"}, "u", "p@ss"},
		"guest, as for kombu":          {Config{URL: "amqp://h"}, "guest", "guest"},
		"one of its own":               {Config{URL: "amqp://u:p@h", ManagementUsername: "m", ManagementPassword: "s"}, "m", "s"},
		"nobody, with a certificate":   {Config{URL: "amqps://h?login_method=EXTERNAL"}, "", ""},
		"but for one of its own there": {Config{URL: "amqps://h", LoginMethod: "EXTERNAL", ManagementUsername: "m", ManagementPassword: "s"}, "m", "s"},
	} {
		endpoints, err := c.cfg.endpoints()
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.cfg.management(endpoints[0])
		if err != nil || s.Username != c.user || s.Password != c.password {
			t.Errorf("%s: %q, %q (%v), want %q, %q", name, s.Username, s.Password, err, c.user, c.password)
		}
	}
}
