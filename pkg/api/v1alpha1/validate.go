package v1alpha1

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// Source is where a CeleryBroker was written, which decides what it may refer
// to.
type Source int

const (
	// FromFile is a brokers file: it can refer to files, not to Secrets.
	FromFile Source = iota + 1
	// FromCluster is an object of a cluster: it can refer to Secrets of its
	// namespace, but not to files, which would be those of the adapter and so of
	// somebody else.
	FromCluster
)

// Limits of Sampling.
const (
	minInterval = 100 * time.Millisecond
	minTimeout  = 10 * time.Millisecond
	maxInterval = time.Hour
	maxDuration = 24 * time.Hour
)

// Limits of Lookout.
const (
	minLookoutInterval = 10 * time.Millisecond
	maxLookoutInterval = time.Minute
	maxReadsPerSecond  = 1_000_000
)

// Validate returns every mistake of b, which SetDefaults has completed. No error
// shows a URL. What stands behind a reference is not looked at: see ValidateURL.
func Validate(b *CeleryBroker, source Source) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(b)
	errs = append(errs, validateURLSource(b, source, spec.Child("url"))...)
	errs = append(errs, validateQueues(b.Spec.Queues, spec.Child("queues"))...)
	errs = append(errs, validateSampling(b.Spec.Sampling, spec.Child("sampling"))...)
	errs = append(errs, validateLookout(b.Spec.Lookout, b.Spec.Sampling, spec.Child("lookout"))...)
	errs = append(errs, validateWorkers(b.Spec.Workers, spec.Child("workers"))...)
	errs = append(errs, validateTLS(b.Spec.TLS, source, spec.Child("tls"))...)
	errs = append(errs, validateSentinel(b.Spec.Redis.Sentinel, source, spec.Child("redis", "sentinel"))...)
	return append(errs, validateRabbitMQ(b.Spec.RabbitMQ, source, spec.Child("rabbitmq"))...)
}

// validateWorkers checks that nobody is asked who is not heard, and that each fleet
// is one.
func validateWorkers(w Workers, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if *w.RemoteControl && !*w.Heartbeats {
		errs = append(errs, field.Forbidden(path.Child("remoteControl"), "whom to ask is known by heartbeats alone: leave workers.heartbeats on"))
	}
	seen := map[string]bool{}
	for i, f := range w.Fleets {
		at := path.Child("fleets").Index(i)
		if countSet(f.Deployment != "", f.StatefulSet != "") != 1 {
			errs = append(errs, field.Required(at, "give exactly one of deployment, statefulset"))
		}
		if len(f.Queues) == 0 || slices.Contains(f.Queues, "") {
			errs = append(errs, field.Required(at.Child("queues"), "the names of the queues that the workers serve"))
		}
		if key := f.Deployment + "/" + f.StatefulSet; seen[key] {
			errs = append(errs, field.Duplicate(at, cmp.Or(f.Deployment, f.StatefulSet)))
		} else {
			seen[key] = true
		}
	}
	return errs
}

// validateMeta checks kind, namespace and name.
func validateMeta(b *CeleryBroker) field.ErrorList {
	errs := validateHead(b.APIVersion, b.Kind)
	meta := field.NewPath("metadata")
	if b.Name == "" {
		errs = append(errs, field.Required(meta.Child("name"), "the broker's name"))
	} else {
		errs = append(errs, validateName(b.Name, meta.Child("name"))...)
	}
	for _, problem := range validation.IsDNS1123Label(b.Namespace) {
		errs = append(errs, field.Invalid(meta.Child("namespace"), b.Namespace, problem))
	}
	return errs
}

// validateHead checks that an object is a CeleryBroker.
func validateHead(apiVersion, kind string) field.ErrorList {
	var errs field.ErrorList
	if apiVersion != APIVersion {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), apiVersion, []string{APIVersion}))
	}
	if kind != Kind {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), kind, []string{Kind}))
	}
	return errs
}

// validateName checks a broker's name, which is a name in Kubernetes and the
// value of a label.
func validateName(name string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, problem := range validation.IsDNS1123Subdomain(name) {
		errs = append(errs, field.Invalid(path, name, problem))
	}
	if len(name) > validation.LabelValueMaxLength {
		errs = append(errs, field.TooLongMaxLength(path, name, validation.LabelValueMaxLength))
	}
	return errs
}

// validateURLSource checks that the broker's URL is found in exactly one place.
func validateURLSource(b *CeleryBroker, source Source, path *field.Path) field.ErrorList {
	u := b.Spec.URL
	errs := validateReference(u.File, u.SecretKeyRef, source, path.Child("file"), path.Child("secretKeyRef"))
	switch countSet(u.Value != "", u.File != "", u.SecretKeyRef != nil) {
	case 0:
		errs = append(errs, field.Required(path, "give exactly one of value, file, secretKeyRef"))
	case 1:
	default:
		errs = append(errs, field.Forbidden(path, "give exactly one of value, file, secretKeyRef, not several"))
	}
	if u.Value != "" {
		errs = append(errs, validateInlineURL(b, source, path.Child("value"))...)
	}
	return errs
}

// validateReference checks a file and a Secret's key of which one at most may be
// set, and only the one that the source can refer to.
func validateReference(file string, ref *SecretKeyRef, source Source, filePath, refPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if file != "" && source == FromCluster {
		errs = append(errs, field.Forbidden(filePath, "only in a brokers file: use secretKeyRef"))
	}
	if ref == nil {
		return errs
	}
	if source == FromFile {
		return append(errs, field.Forbidden(refPath, "only in a cluster: use a file"))
	}
	if ref.Name == "" {
		errs = append(errs, field.Required(refPath.Child("name"), "the Secret's name"))
	}
	if ref.Key == "" {
		errs = append(errs, field.Required(refPath.Child("key"), "the key within the Secret"))
	}
	return errs
}

// validateQueues checks the names of queues and that no two share a label.
func validateQueues(queues []Queue, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	byName, byLabel := map[string]bool{}, map[string]Queue{}
	for i, q := range queues {
		at := path.Index(i)
		for _, problem := range validation.IsValidLabelValue(q.Alias) {
			errs = append(errs, field.Invalid(at.Child("alias"), q.Alias, problem))
		}
		if q.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "the queue's name"))
			continue
		}
		if byName[q.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), q.Name))
			continue
		}
		byName[q.Name] = true
		if other, taken := byLabel[q.Label()]; taken {
			errs = append(errs, labelTaken(q, other, at))
			continue
		}
		byLabel[q.Label()] = q
	}
	return errs
}

// labelTaken says that q has the label of other, and at which field.
func labelTaken(q, other Queue, path *field.Path) *field.Error {
	err := field.Duplicate(path.Child("alias"), q.Label())
	if q.Alias == "" {
		err = field.Duplicate(path.Child("name"), q.Name)
	}
	err.Detail = fmt.Sprintf("queue %q would have the same label %q as queue %q: give one of them another alias", q.Name, q.Label(), other.Name)
	return err
}

// validateLookout checks how closely sleeping queues are watched.
func validateLookout(l Lookout, s Sampling, path *field.Path) field.ErrorList {
	errs := validateDuration(l.Interval, minLookoutInterval, maxLookoutInterval, path.Child("interval"))
	if n := *l.ReadsPerSecond; n < 1 || n > maxReadsPerSecond {
		errs = append(errs, field.Invalid(path.Child("readsPerSecond"), n, fmt.Sprintf("must be from 1 to %d", maxReadsPerSecond)))
	}
	shortest, longest := s.Interval.Duration, s.MaxAge.Duration // beyond that, nothing would be known in between
	if shortest < minInterval || longest < shortest {
		return errs // which is told of sampling
	}
	return append(errs, validateDuration(l.SampleInterval, shortest, min(longest, maxInterval), path.Child("sampleInterval"))...)
}

// validateSampling checks the times and how they fit together.
func validateSampling(s Sampling, path *field.Path) field.ErrorList {
	errs := validateDuration(s.Interval, minInterval, maxInterval, path.Child("interval"))
	oldest := minInterval
	if len(errs) == 0 && s.Interval != nil {
		oldest = s.Interval.Duration
	}
	errs = append(errs, validateDuration(s.Timeout, minTimeout, maxInterval, path.Child("timeout"))...)
	return append(errs, validateDuration(s.MaxAge, oldest, maxDuration, path.Child("maxAge"))...)
}

// validateDuration checks that d, if it is set, lies within bounds.
func validateDuration(d *metav1.Duration, low, high time.Duration, path *field.Path) field.ErrorList {
	if d == nil || d.Duration >= low && d.Duration <= high {
		return nil
	}
	return field.ErrorList{field.Invalid(path, d.Duration.String(), fmt.Sprintf("must be from %v to %v", low, high))}
}

// validateTLS checks that no item has two sources and that certificate and key
// come together.
func validateTLS(t TLS, source Source, path *field.Path) field.ErrorList {
	errs := validateTLSItem("ca", t.CAFile, t.CASecretKeyRef, source, path)
	errs = append(errs, validateTLSItem("cert", t.CertFile, t.CertSecretKeyRef, source, path)...)
	errs = append(errs, validateTLSItem("key", t.KeyFile, t.KeySecretKeyRef, source, path)...)
	hasCert := t.CertFile != "" || t.CertSecretKeyRef != nil
	hasKey := t.KeyFile != "" || t.KeySecretKeyRef != nil
	form := "File"
	if source == FromCluster {
		form = "SecretKeyRef"
	}
	if hasCert && !hasKey {
		errs = append(errs, field.Required(path.Child("key"+form), "a client certificate needs its private key"))
	}
	if hasKey && !hasCert {
		errs = append(errs, field.Required(path.Child("cert"+form), "a private key needs its client certificate"))
	}
	return errs
}

// validateTLSItem checks one of the authorities, the certificate and the key.
func validateTLSItem(name, file string, ref *SecretKeyRef, source Source, path *field.Path) field.ErrorList {
	filePath, refPath := path.Child(name+"File"), path.Child(name+"SecretKeyRef")
	errs := validateReference(file, ref, source, filePath, refPath)
	if file != "" && ref != nil {
		errs = append(errs, field.Forbidden(refPath, fmt.Sprintf("give one of %[1]sFile and %[1]sSecretKeyRef, not both", name)))
	}
	return errs
}

// validateSentinel checks the Sentinels' login.
func validateSentinel(s Sentinel, source Source, path *field.Path) field.ErrorList {
	errs := validateCredential(s.Password, source, path.Child("password"))
	if s.Username != "" && !s.Password.isSet() {
		errs = append(errs, field.Required(path.Child("password"), "a user name needs a password"))
	}
	return errs
}

// validateRabbitMQ checks what can be checked without the broker's URL.
func validateRabbitMQ(r RabbitMQ, source Source, path *field.Path) field.ErrorList {
	errs := validateManagementURL(r.ManagementURL, path.Child("managementURL"))
	if methods := []string{celery.LoginPlain, celery.LoginAMQPlain, celery.LoginExternal}; r.LoginMethod != "" && !slices.Contains(methods, r.LoginMethod) {
		errs = append(errs, field.NotSupported(path.Child("loginMethod"), r.LoginMethod, methods))
	}
	errs = append(errs, validateDuration(r.QuorumTickInterval, minInterval, maxInterval, path.Child("quorumTickInterval"))...)
	return append(errs, validateManagement(r.Management, source, path.Child("management"))...)
}

// validateManagement checks the management API's login.
func validateManagement(m Management, source Source, path *field.Path) field.ErrorList {
	errs := validateCredential(m.Password, source, path.Child("password"))
	if m.Username != "" && !m.Password.isSet() {
		errs = append(errs, field.Required(path.Child("password"), "a user name needs a password"))
	}
	if m.Username == "" && m.Password.isSet() {
		errs = append(errs, field.Required(path.Child("username"), "a password needs its user name"))
	}
	return errs
}

// validateCredential checks that a credential is found in one place at most.
func validateCredential(c CredentialSource, source Source, path *field.Path) field.ErrorList {
	errs := validateReference(c.File, c.SecretKeyRef, source, path.Child("file"), path.Child("secretKeyRef"))
	if c.File != "" && c.SecretKeyRef != nil {
		errs = append(errs, field.Forbidden(path, "give one of file and secretKeyRef, not both"))
	}
	return errs
}

// isSet tells whether there is such a credential.
func (c CredentialSource) isSet() bool { return c.File != "" || c.SecretKeyRef != nil }

// countSet counts what is true.
func countSet(given ...bool) int {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	return n
}
