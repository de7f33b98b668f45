// Package unserved tells the owner of an HPA that scales on a metric of ours in a
// namespace that no broker serves. Such an HPA is not watched by anybody here: that it
// exists is known from its asking.
package unserved
