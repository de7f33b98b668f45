// Package pki makes the keys and certificates of a local control plane, which
// live as long as it does: authorities, certificates of servers and of clients,
// and the key pair that signs service-account tokens.
package pki
