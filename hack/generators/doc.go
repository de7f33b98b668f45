// Package generators holds no code: it pins controller-gen, and what it generates from
// besides this repository's own types.
package generators
