// Package strictyaml decodes YAML documents into API types and reports every
// mistake at once, each with its field path and its line: an unknown field, a
// field given twice, a value of the wrong type. The usual decoders stop at the
// first mistake of a kind, give no path for a duplicate, and quote the value,
// which may be a broker URL with its password. No error of this package quotes
// a value.
//
// Anchors, aliases and merge keys are refused: without them a document is a
// tree, and its size bounds the work of reading it.
package strictyaml
