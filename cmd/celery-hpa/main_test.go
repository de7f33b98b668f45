package main

import (
	"flag"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds the wait for a line of a log. Only a failing test waits that
// long.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the texts that scripts compare with anew")
	testscript.Main(m, map[string]func(){"celery-hpa": main})
}

// TestScripts drives the program as its user does. With -update, the texts that
// scripts compare with are written anew.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       flag.Lookup("update").Value.String() == "true",
		RequireExplicitExec: true,
		Setup:               setUp,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"await": await},
	})
}

// setUp gives a script the address of a port that is in use: $BUSY.
func setUp(env *testscript.Env) error {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nobody waits for it
	if err != nil {
		return err
	}
	env.Defer(func() { _ = l.Close() })
	env.Setenv("BUSY", l.Addr().String())
	return nil
}

// await is a command of the scripts: "await FILE TEXT" waits until the file holds
// the text.
func await(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if strings.Contains(string(text), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not hold %q (%v):\n%s", args[0], args[1], err, text)
		}
	}
}
