// Package documents picks documents from those that an administrator applies.
package documents
