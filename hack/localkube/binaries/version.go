package binaries

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// Version is a release of one of the programs.
type Version struct{ Major, Minor, Patch int }

// versionPattern finds the first version in what a program says of itself:
// "Kubernetes v1.37.2", "Client Version: v1.37.2", "etcd Version: 3.7.0". A
// pre-release suffix is not read.
var versionPattern = regexp.MustCompile(`\bv?(\d+)\.(\d+)\.(\d+)`)

// ParseVersion returns the first version in text.
func ParseVersion(text string) (Version, error) {
	match := versionPattern.FindStringSubmatch(text)
	if match == nil {
		return Version{}, fmt.Errorf("no version in %q", text)
	}
	var parts [3]int
	for i, digits := range match[1:] {
		number, err := strconv.Atoi(digits)
		if err != nil {
			return Version{}, fmt.Errorf("read version %q: %w", match[0], err)
		}
		parts[i] = number
	}
	return Version{Major: parts[0], Minor: parts[1], Patch: parts[2]}, nil
}

// Compare is negative, zero or positive as v is older than, the same as, or newer
// than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch))
}

// String returns "1.37.2".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// program is one of the four, with how it tells its version and the oldest that
// serves.
type program struct {
	name    string
	ask     []string
	minimum Version
}

// programs returns the four. Kubernetes must be 1.37 or later: from there on
// HPAScaleToZero is on by default in API server and controller manager. etcd must
// be 3.6 or later, the series that Kubernetes 1.37 supports beside 3.7.
func programs() []program {
	kubernetes := Version{Major: 1, Minor: 37}
	return []program{
		{name: "etcd", ask: []string{"--version"}, minimum: Version{Major: 3, Minor: 6}},
		{name: "kube-apiserver", ask: []string{"--version"}, minimum: kubernetes},
		{name: "kube-controller-manager", ask: []string{"--version"}, minimum: kubernetes},
		{name: "kubectl", ask: []string{"version", "--client"}, minimum: kubernetes},
	}
}

// check runs the program at path and says why it does not serve, if so.
func (p program) check(ctx context.Context, path string) error {
	out, err := exec.CommandContext(ctx, path, p.ask...).Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", path, err)
	}
	version, err := ParseVersion(string(out))
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", path, err)
	}
	if version.Compare(p.minimum) < 0 {
		return fmt.Errorf("%s is version %s, older than %s", path, version, p.minimum)
	}
	return nil
}
