// Package brokersfile reads CeleryBroker documents from a file, together with
// the files of credentials and certificates that they refer to, and notices when
// any of them changes.
//
// It looks at the content once a second instead of being told of changes by the
// kernel (inotify): Kubernetes changes a mounted Secret or ConfigMap by swapping
// a symbolic link to a folder, editors replace files, network file systems tell
// nothing, and a watch on the old file misses each of these in its own way. To
// read a few small files a second costs next to nothing and misses nothing.
//
// What is good stays in use: a file with a mistake, or one that cannot be read,
// leaves the brokers as they are, and one broker's bad credentials leave the
// other brokers alone.
package brokersfile
