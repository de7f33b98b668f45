package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxLabelLen is the length that Kubernetes allows a label value
// (k8s.io/apimachinery/pkg/util/validation, LabelValueMaxLength).
const maxLabelLen = 63

// Lengths of the two parts of a shortened label: 54 characters of the name, a
// dash and 8 digits of its hash make up maxLabelLen.
const (
	labelHeadLen = 54
	labelHashLen = 8
)

// Label returns the label value under which the queue called name is selected
// where nobody declared an alias for it. A name that is a valid Kubernetes label
// value (1 to 63 of A-Z a-z 0-9 - _ . with a letter or digit at both ends) is
// its own label. Any other label is derived:
//
//  1. Each character that a label value cannot hold becomes one "_"; so does
//     each byte that is no part of valid UTF-8.
//  2. An "x" is put before a first character, and after a last character, that
//     is not a letter or digit. The empty name becomes "x".
//  3. What is then longer than 63 characters keeps its first 54, followed by "-"
//     and the first 8 hexadecimal digits of the SHA-256 of the name.
//
// Different names can have the same label ("a:b" and "a_b"): whoever keeps
// queues by label has to refuse such a pair.
func Label(name string) string {
	label := fillEnds(strings.Map(labelRune, name))
	if len(label) <= maxLabelLen {
		return label
	}
	sum := sha256.Sum256([]byte(name))
	return label[:labelHeadLen] + "-" + hex.EncodeToString(sum[:])[:labelHashLen]
}

// labelRune maps what a label value cannot hold to "_".
func labelRune(r rune) rune {
	if isAlphanumeric(r) || r == '-' || r == '_' || r == '.' {
		return r
	}
	return '_'
}

// fillEnds makes an ASCII label begin and end with a letter or digit.
func fillEnds(label string) string {
	if label == "" {
		return "x"
	}
	if !isAlphanumeric(rune(label[0])) {
		label = "x" + label
	}
	if !isAlphanumeric(rune(label[len(label)-1])) {
		label += "x"
	}
	return label
}

// isAlphanumeric tells whether r is an ASCII letter or digit.
func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
