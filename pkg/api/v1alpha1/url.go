package v1alpha1

import (
	"net/url"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/celery-hpa/celery-hpa/pkg/celery"
)

// ValidateURL returns what is wrong with raw as the URL of b: with the URL
// itself, and with how it fits the other fields. Path is the field that the URL
// came from, by reference or inline. No error shows the URL or a part of it.
func ValidateURL(b *CeleryBroker, source Source, raw string, path *field.Path) field.ErrorList {
	parsed, err := celery.ParseBrokerURL(raw)
	if err != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, err.Error())}
	}
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if parsed.Transport == celery.TransportAMQP {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "RabbitMQ is not supported yet by this version")}
	}
	if parsed.Transport == celery.TransportSentinel && b.Spec.Redis.MasterName == "" {
		errs = append(errs, field.Required(spec.Child("redis", "masterName"), "a sentinel:// URL needs the name by which the Sentinels know the master"))
	}
	if source == FromCluster && slices.ContainsFunc(parsed.Endpoints, namesFile) {
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "the URL names files, which are only in a brokers file: use spec.tls"))
	}
	return errs
}

// validateInlineURL checks a URL that stands in the object, where everybody who
// may read the object can see it.
func validateInlineURL(b *CeleryBroker, source Source, path *field.Path) field.ErrorList {
	parsed, err := celery.ParseBrokerURL(b.Spec.URL.Value)
	errs := ValidateURL(b, source, b.Spec.URL.Value, path)
	if err == nil && parsed.HasPassword() {
		errs = append(errs, field.Forbidden(path, "holds a password: put the URL into a file or a Secret, and use url.file or url.secretKeyRef"))
	}
	return errs
}

// validateManagementURL checks the URL of RabbitMQ's management API. The errors
// of net/url are left out, since they quote the URL.
func validateManagementURL(raw string, path *field.Path) field.ErrorList {
	if raw == "" {
		return nil
	}
	parsed, err := url.Parse(raw)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "is not a URL: write it like http://rabbitmq:15672")}
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "must begin with http:// or https://")}
	case parsed.Hostname() == "":
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "names no host: write it like http://rabbitmq:15672")}
	case parsed.User != nil:
		return field.ErrorList{field.Forbidden(path, "must hold no credentials: those of the broker's URL are used")}
	}
	return nil
}

// namesFile tells whether e refers to a file of certificates or a key.
func namesFile(e celery.Endpoint) bool {
	return e.TLS != nil && (e.TLS.CAFile != "" || e.TLS.CertFile != "" || e.TLS.KeyFile != "")
}
