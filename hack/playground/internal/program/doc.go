// Package program builds the program that a playground runs.
package program
