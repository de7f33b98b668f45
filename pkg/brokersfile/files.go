package brokersfile

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFileSize bounds every file that is read, 1 MiB: thousands of brokers, and
// far more than any credential or certificate.
const maxFileSize = 1 << 20

// readFile returns the content of the regular file at path. Anything else is
// refused before it is opened: to open a pipe would block.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: check the path and that this process may read it", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: check that this process may read it", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFileSize)
	}
	return data, nil
}
