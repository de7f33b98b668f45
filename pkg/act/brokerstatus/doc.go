// Package brokerstatus tells the owner of a CeleryBroker, in its status, whether the
// broker is read, why not, and what it holds.
package brokerstatus
