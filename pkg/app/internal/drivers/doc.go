// Package drivers opens the driver that a broker's URL asks for, with what its CeleryBroker
// says. Nothing here does I/O.
package drivers
