// Package externalmetrics answers queries of the external metrics API from
// memory. It never asks a broker. What is not known is an error that says why,
// never a zero and never an empty list, because the HPA holds its replicas on
// an error and believes everything else.
package externalmetrics
