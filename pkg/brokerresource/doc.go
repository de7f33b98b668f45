// Package brokerresource reads the CeleryBrokers of a cluster, together with the Secrets
// that they refer to, and notices when any of them changes.
//
// The CeleryBrokers are watched. The Secrets are not: to watch them takes the right to
// read all of a namespace. Each that a CeleryBroker names is read by its name, at once
// when the CeleryBroker changes and every ten seconds from then on.
//
// What is good stays in use: a Secret that is missing, or holds what is of no use, leaves
// its broker as it was, and every other broker alone.
package brokerresource
