// Package events writes Events of HorizontalPodAutoscalers, which kubectl describe shows:
// in the order in which they were told of, without that anybody waits for it.
package events
