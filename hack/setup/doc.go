// Package setup knows what setup.sh, in the same folder, has installed and
// where, so that tests and demo find it.
package setup
