// Package begun counts the tasks that have left a broker and of which no worker has told
// yet. With early acknowledgement a broker forgets a task when it begins, and the worker
// tells of it by its next heartbeat: in between it is nowhere.
package begun
