// Package delegate has no code of its own. Its tests put celery-hpa in the place of another
// server of external metrics, the test adapter of the library that such servers are made
// with, on a real control plane.
package delegate
