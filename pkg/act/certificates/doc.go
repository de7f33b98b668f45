// Package certificates gives celery-hpa its serving certificate without help from
// outside: an authority of its own, and a certificate that it has signed, in one Secret
// of celery-hpa's namespace.
//
// Every replica serves what the Secret holds, from memory, and takes a change over
// without a restart. One that finds no Secret when it starts makes it. Everything else
// is the leader's: it renews, and keeps the authorities of the Secret in the caBundle of
// the APIService and of the webhooks.
//
// A serving certificate is followed by another of the same authority, which changes
// nothing about trust. An authority is followed in steps, so that whoever is asked shows
// a certificate that whoever asks trusts: first both authorities are trusted, then the
// new one signs, then the old one is trusted no more. Between steps is a settling time,
// counted from when the leader has seen all in place. What the Secret holds says which
// step is next; nothing else is remembered, so that any replica may lead at any time.
//
// # Why not a library
//
// github.com/open-policy-agent/cert-controller (v0.16.0, pkg/rotator) does this for
// programs of controller-runtime. It needs a manager, and lists and watches the Secrets
// of the namespace; it updates a Secret that somebody else has to make, and serves from
// a mounted one; and it writes a new authority, the certificate signed by it and the
// caBundles, each in place of the one before (refreshCerts, ensureCerts), so that
// handshakes fail until the last replica has the new files.
package certificates
