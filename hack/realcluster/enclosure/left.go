//go:build linux

package enclosure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// namespacesOf are the names of the namespaces that a process does not share with this
// one.
func namespacesOf(pid int) ([]string, error) {
	var names []string
	for _, kind := range []string{"net", "mnt", "pid", "ipc"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return nil, fmt.Errorf("look at the namespaces: %w", err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			return nil, fmt.Errorf("look at the namespaces: %w", err)
		}
		if theirs == ours {
			return nil, fmt.Errorf("the enclosure shares %s with this process", ours)
		}
		names = append(names, theirs)
	}
	return names, nil
}

// checkNobody returns an error if a process is left in one of the namespaces. Without
// one, and with no name, they are gone, and the mounts in them.
func checkNobody(namespaces []string) error {
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		return fmt.Errorf("look for processes: %w", err)
	}
	var errs []error
	for _, link := range links {
		name, err := os.Readlink(link)
		if err == nil && slices.Contains(namespaces, name) { // else it has just ended
			errs = append(errs, fmt.Errorf("a process is left: %s is %s", link, name))
		}
	}
	return errors.Join(errs...)
}

// cgroupRoots are where cgroups are, of version 2 and of each hierarchy of version 1.
const cgroupRoots = "/sys/fs/cgroup/*/k8s.io"

// cgroups are those of containers that are there: cgroups know no namespace that would
// end them.
func cgroups() ([]string, error) {
	found, err := filepath.Glob(cgroupRoots)
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	two, err := filepath.Glob("/sys/fs/cgroup/k8s.io")
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	return append(found, two...), nil
}

// removeCgroups removes those that were not there before, which no process is in any
// more.
func removeCgroups(before []string) error {
	after, err := cgroups()
	if err != nil {
		return err
	}
	for _, top := range after {
		if slices.Contains(before, top) {
			continue
		}
		if err := removeTree(top); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a cgroup, the innermost first. Its files cannot be removed and go
// with it.
func removeTree(top string) error {
	var folders []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look for cgroups: %w", err)
	}
	for _, folder := range slices.Backward(folders) {
		if err := os.Remove(folder); err != nil {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
	}
	return nil
}
