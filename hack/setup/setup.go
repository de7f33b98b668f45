package setup

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/celery-hpa/celery-hpa/hack/localkube/binaries"
)

// PythonEnv names the environment variable that holds the path of a Python
// interpreter to use instead of the one that setup.sh has prepared. It must be
// able to import celery and redis, and gevent for the workers of that pool.
const PythonEnv = "CELERY_HPA_PYTHON"

//go:embed requirements.txt
var requirements []byte

// keyLength is how many hexadecimal digits of the requirements' digest name the
// folder: as many as setup.sh takes.
const keyLength = 12

// Python returns the path of a Python interpreter that can import celery, gevent
// and redis: that of PythonEnv, else the one that setup.sh has prepared. The error
// says what to do if there is none.
func Python() (string, error) {
	if path := os.Getenv(PythonEnv); path != "" {
		return path, nil
	}
	cache, err := binaries.CacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "celery", key())
	if _, err := os.Stat(filepath.Join(folder, "ready")); err != nil {
		return "", fmt.Errorf(`no Celery to run, "make setup" installs it: %w`, err)
	}
	return filepath.Join(folder, "bin", "python"), nil
}

func key() string {
	digest := sha256.Sum256(requirements)
	return hex.EncodeToString(digest[:])[:keyLength]
}
