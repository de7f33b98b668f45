// Package slim makes objects of the API server small, by what is known of fleets.
package slim
