// Package transport is what the connections of every driver have in common: TLS
// made of files, lists of endpoints, and advice for errors of the network.
package transport
