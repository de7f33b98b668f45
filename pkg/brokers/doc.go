// Package brokers says what is known of a broker before anybody asks it: its
// CeleryBroker document together with the credentials and certificates that the document
// refers to, wherever both come from. It does no I/O: who has the document reads what it
// refers to.
package brokers
