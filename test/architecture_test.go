package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/celery-hpa/celery-hpa/"

// Limits of size, in lines.
const (
	longestFunction = 70
	// mostFunctions is what nine of ten functions stay under.
	mostFunctions = 35
	largestFile   = 600
	// largestPackage counts code alone: comments cost nothing.
	largestPackage = 800
)

// file is one Go file that is part of a package, not of its tests.
type file struct {
	name    string // from the top of the repository, with slashes
	syntax  *ast.File
	set     *token.FileSet
	content string
}

func (f file) folder() string { return path.Dir(f.name) }

func (f file) isIn(folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return f.folder() == folder || strings.HasPrefix(f.name, folder+"/")
	})
}

func (f file) imports() []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		paths = append(paths, imported)
	}
	return paths
}

// floors lists which folders the packages of a folder may import from. The floors
// read, remember and judge do not know each other.
func floors() map[string][]string {
	words := []string{"pkg/queue", "pkg/celery", "pkg/api"}
	below := slices.Concat(words, []string{"pkg/broker", "pkg/observe", "pkg/decide"})
	do := []string{"pkg/act", "pkg/serve", "pkg/brokers", "pkg/brokersfile", "pkg/brokerresource"}
	wire := []string{"pkg/app", "pkg/cli"}
	return map[string][]string{
		"pkg/queue":          {},
		"pkg/celery":         {"pkg/queue", "pkg/celery"},
		"pkg/api":            words,
		"pkg/broker":         slices.Concat(words, []string{"pkg/broker"}),
		"pkg/observe":        slices.Concat(words, []string{"pkg/observe"}),
		"pkg/decide":         slices.Concat(words, []string{"pkg/decide"}),
		"pkg/act":            slices.Concat(below, do),
		"pkg/serve":          slices.Concat(below, do),
		"pkg/brokers":        words,
		"pkg/brokersfile":    slices.Concat(words, []string{"pkg/brokers", "pkg/brokersfile"}),
		"pkg/brokerresource": slices.Concat(words, []string{"pkg/brokers", "pkg/brokerresource"}),
		"pkg/app":            slices.Concat(below, do, wire),
		"pkg/cli":            slices.Concat(below, do, wire),
		"cmd":                {"pkg/cli"},
	}
}

func TestImportsGoDownTheFloors(t *testing.T) {
	floors := floors()
	for _, f := range product(t) {
		floor := floorOf(f)
		allowed, known := floors[floor]
		if !known {
			t.Errorf("%s is on no floor: give its folder a place in floors", f.name)
			continue
		}
		for _, imported := range f.imports() {
			ours, isOurs := strings.CutPrefix(imported, module)
			if isOurs && !isBelow(ours, allowed) {
				t.Errorf("%s imports %s, which %s must not know", f.name, ours, floor)
			}
		}
	}
}

// floorOf is the first folder, in pkg the first two.
func floorOf(f file) string {
	parts := strings.Split(f.name, "/")
	if parts[0] == "pkg" {
		return path.Join(parts[:2]...)
	}
	return parts[0]
}

func isBelow(imported string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return imported == folder || strings.HasPrefix(imported, folder+"/")
	})
}

func TestOnlyMainAndTestsWireTheProgram(t *testing.T) {
	for _, f := range sources(t) {
		for _, imported := range f.imports() {
			wired := isBelow(imported, []string{module + "pkg/app", module + "pkg/cli"})
			if wired && !f.isIn("pkg/app", "pkg/cli", "cmd", "test", "hack/demo") {
				t.Errorf("%s imports %s", f.name, imported)
			}
		}
	}
}

func TestFewPackagesKnowOutsideClients(t *testing.T) {
	rules := []struct {
		clients []string
		users   []string
	}{
		{[]string{"github.com/redis/go-redis", "github.com/rabbitmq/amqp091-go"}, []string{"pkg/broker"}},
		{
			[]string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"},
			[]string{"pkg/observe/fleet", "pkg/decide/target", "pkg/act", "pkg/brokerresource", "pkg/serve/apiserver", "pkg/cli", "pkg/app"},
		},
		{[]string{"github.com/prometheus/client_golang/prometheus/promauto"}, nil},
	}
	for _, f := range product(t) {
		for _, imported := range f.imports() {
			for _, rule := range rules {
				if isBelow(imported, rule.clients) && !f.isIn(rule.users...) {
					t.Errorf("%s imports %s, which belongs to %v alone", f.name, imported, rule.users)
				}
			}
		}
	}
}

func TestPureWordsImportTheStandardLibraryAlone(t *testing.T) {
	for _, f := range product(t) {
		if !f.isIn("pkg/queue", "pkg/celery", "pkg/decide/idle") {
			continue
		}
		for _, imported := range f.imports() {
			host, _, _ := strings.Cut(imported, "/")
			if strings.Contains(host, ".") && imported != module+"pkg/queue" && imported != module+"pkg/celery" {
				t.Errorf("%s imports %s", f.name, imported)
			}
		}
	}
}

func TestPackagesAreNamedForWhatTheyProvide(t *testing.T) {
	for _, f := range sources(t) {
		if name := f.syntax.Name.Name; slices.Contains([]string{"util", "utils", "common", "helpers"}, name) {
			t.Errorf("%s: package %s says nothing", f.name, name)
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range sources(t) {
		isPlace := path.Base(f.name) == "doc.go" || f.syntax.Name.Name == "main"
		documented[f.folder()] = documented[f.folder()] || isPlace && f.syntax.Doc != nil
	}
	for folder, done := range documented {
		if !done {
			t.Errorf("%s has no doc.go with a package comment", folder)
		}
	}
}

func TestNothingHappensByImporting(t *testing.T) {
	for _, f := range sources(t) {
		for _, function := range functions(f) {
			if function.name == "init" {
				t.Errorf("%s has an init function", f.name)
			}
		}
	}
}

func TestFunctionsAreSmall(t *testing.T) {
	var lengths []int
	for _, f := range sources(t) {
		for _, function := range functions(f) {
			lengths = append(lengths, function.lines)
			if function.lines > longestFunction {
				t.Errorf("%s: %s has %d lines, want %d at the most", f.name, function.name, function.lines, longestFunction)
			}
		}
	}
	slices.Sort(lengths)
	if got := lengths[len(lengths)*9/10]; got >= mostFunctions {
		t.Errorf("one of ten functions has %d lines or more, want fewer than %d", got, mostFunctions)
	}
}

func TestFilesAndPackagesAreSmall(t *testing.T) {
	packages := map[string]int{}
	for _, f := range sources(t) {
		if lines := strings.Count(f.content, "\n"); lines > largestFile {
			t.Errorf("%s has %d lines, want %d at the most", f.name, lines, largestFile)
		}
		packages[f.folder()] += linesOfCode(f.content)
	}
	for folder, lines := range packages {
		if lines > largestPackage {
			t.Errorf("%s has %d lines of code, want %d at the most: it is two packages", folder, lines, largestPackage)
		}
	}
}

func linesOfCode(content string) int {
	n := 0
	for line := range strings.Lines(content) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	return n
}

// function is a declared function with the lines from "func" to its last brace.
type function struct {
	name  string
	lines int
}

func functions(f file) []function {
	var found []function
	for _, declaration := range f.syntax.Decls {
		if d, ok := declaration.(*ast.FuncDecl); ok {
			from, to := f.set.Position(d.Pos()).Line, f.set.Position(d.End()).Line
			found = append(found, function{d.Name.Name, to - from + 1})
		}
	}
	return found
}

// product is what of the sources is shipped.
func product(t *testing.T) []file {
	t.Helper()
	return slices.DeleteFunc(sources(t), func(f file) bool { return !f.isIn("pkg", "cmd") })
}

// sources parses every Go file of the repository that is no test.
func sources(t *testing.T) []file {
	t.Helper()
	root := os.DirFS("..")
	var files []file
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return skip(entry, err)
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		content, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, name, content, parser.ParseComments|parser.SkipObjectResolution)
		files = append(files, file{name, syntax, set, string(content)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// skip leaves out folders that the go command leaves out as well.
func skip(entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	name := entry.Name()
	if name != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "vendor") {
		return fs.SkipDir
	}
	return nil
}
