//go:build linux

package enclosure

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// setUp makes the inside of the enclosure, from within. /sys stays as it is: a new one
// would hide the cgroups.
func setUp(dir string) error {
	if err := mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	for _, path := range []string{"/etc", "/opt", "/var"} {
		if err := shade(path, filepath.Join(dir, "written", path)); err != nil {
			return err
		}
	}
	return mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
}

// shade has what is written below path from now on written into dir instead.
func shade(path, dir string) error {
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, folder := range []string{upper, work} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make a folder over %s: %w", path, err)
		}
	}
	return mount("overlay", path, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, upper, work))
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
