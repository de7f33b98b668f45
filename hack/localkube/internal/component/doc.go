// Package component runs the programs of a control plane: each with its log in a
// file, stopped in good order, and missed at once, with the end of its log, when
// it ends unasked.
package component
