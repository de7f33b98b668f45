// Package bench measures what celery-hpa costs where it runs: behind a real
// aggregator, as a process of its own. Figures are ratios against a reference in
// the same run wherever that is possible, since machines differ and are shared.
package bench
