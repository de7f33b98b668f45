package simulation_test

// mark is something of which it is counted how often it happened.
type mark int

const (
	tasks mark = iota
	sleeps
	wakes
	raises
	strandedWakes
	standbyWakes
	blindWakes
	ledWakes
	checks
	lateLooks
	hpaSleeps
	refusals
	webhookFailures
	conflicts
	forced
	forcedOverZero
	blindSyncs
	lostRequests
	lostAnswers
	timeouts
	slowWrites
	staleCaches
	lostBeats
	lostNotices
	brokenLines
	silentWorkers
	samplesFailed
	halfSamples
	brokerPauses
	brokerCuts
	apiCuts
	replicaKills
	leaderKills
	killsInCalls
	handovers
	twoLeaders
	stalls
	podDeaths
	peopleActed
	pauses
	pausedMeanwhile
	heldForETA
	restores
	tasksLost
	takenInGap
	lostInGap
	waitsJudged
	sizesJudged
	numberOfMarks
)

// marks counts.
type marks [numberOfMarks]int

// names say what was counted, in the order of the marks.
func names() [numberOfMarks]string {
	return [numberOfMarks]string{
		"tasks published", "sleeps by celery-hpa", "wakes", "raises", "wakes for stranded messages",
		"wakes by a replica that did not lead", "of them after a time in which it did not know", "wakes by one that began to lead meanwhile",
		"idle windows that ended in looks", "looks that found something, ours or the webhook's", "steps to zero by the HPA", "refusals by the webhook", "webhooks without answer",
		"conflicts", "sizes that the HPA forced after a conflict", "of them over zero", "syncs of the HPA without metrics",
		"writes that never arrived", "writes whose answer was lost", "time-outs of writes", "slow writes", "stale caches",
		"lost heartbeats", "lost notices", "broken lines", "workers that did not answer", "samples that failed", "samples that lacked a part",
		"pauses of the broker", "replicas cut off from the broker", "replicas cut off from the API server",
		"kills of a replica", "of them of the leader", "of them within a call", "hand-overs of the lease", "moments with two leaders",
		"processes that stood still", "nodes that failed", "people who interfered", "pauses by annotation", "writes that a pause came too late for",
		"messages held for an ETA", "messages restored after the visibility timeout", "tasks lost by known losses",
		"tasks taken after the last look and killed", "of them lost for good", "waits at zero that were judged", "sizes after a wake that were judged",
	}
}

// add adds up.
func (m *marks) add(other marks) {
	for i, n := range other {
		m[i] += n
	}
}
