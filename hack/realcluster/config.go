package realcluster

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed config
var templates embed.FS

// settings are what the configuration files are filled in with.
type settings struct {
	Dir, Node, PodCIDR, CAFile string
	ProxyKubeconfig            string
}

// write writes every configuration file into the cluster's folder, by the names that they
// have in the folder config.
func (s settings) write() error {
	files, err := fs.Sub(templates, "config")
	if err != nil {
		return fmt.Errorf("read the configuration's templates: %w", err)
	}
	err = fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(s.Dir, name)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return s.fill(files, name, target)
	})
	if err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	return nil
}

func (s settings) fill(files fs.FS, name, target string) error {
	parsed, err := template.ParseFS(files, name)
	if err != nil {
		return err
	}
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	defer file.Close()
	return parsed.Execute(file, s)
}
