package v1alpha1

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

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
	errs := validateTransport(b.Spec, source, parsed, field.NewPath("spec"))
	if source == FromCluster && slices.ContainsFunc(parsed.Endpoints, namesFile) {
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "the URL names files, which are only in a brokers file: use spec.tls"))
	}
	return errs
}

// validateTransport checks that spec is one for the kind of broker of u.
func validateTransport(spec CeleryBrokerSpec, source Source, u celery.BrokerURL, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if u.Transport == celery.TransportAMQP {
		if spec.Redis != (Redis{}) {
			errs = append(errs, field.Forbidden(path.Child("redis"), "has no meaning with a URL of RabbitMQ: remove it"))
		}
		if slices.ContainsFunc(u.Endpoints, func(e celery.Endpoint) bool { return lacksCertificate(spec, e) }) {
			errs = append(errs, noCertificate(source, path.Child("rabbitmq", "loginMethod")))
		}
		return errs
	}
	if spec.RabbitMQ != (RabbitMQ{}) {
		errs = append(errs, field.Forbidden(path.Child("rabbitmq"), "has no meaning with a URL of Redis: remove it"))
	}
	if u.Transport == celery.TransportSentinel && spec.Redis.MasterName == "" {
		errs = append(errs, field.Required(path.Child("redis", "masterName"), "a sentinel:// URL needs the name by which the Sentinels know the master"))
	}
	return errs
}

// lacksCertificate tells whether the login to e takes a client certificate that
// neither spec nor the URL has.
func lacksCertificate(spec CeleryBrokerSpec, e celery.Endpoint) bool {
	external := cmp.Or(e.LoginMethod, spec.RabbitMQ.LoginMethod) == celery.LoginExternal
	inSpec := spec.TLS.CertFile != "" || spec.TLS.CertSecretKeyRef != nil
	inURL := e.TLS != nil && e.TLS.CertFile != ""
	return external && !inSpec && !inURL
}

// noCertificate says what EXTERNAL needs, in the terms of source.
func noCertificate(source Source, path *field.Path) *field.Error {
	fields := "certFile and spec.tls.keyFile"
	if source == FromCluster {
		fields = "certSecretKeyRef and spec.tls.keySecretKeyRef"
	}
	return field.Invalid(path, celery.LoginExternal, "logs in with a client certificate: set spec.tls."+fields)
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
		return field.ErrorList{field.Forbidden(path, "must hold no credentials: use management.username and management.password")}
	case strings.ContainsAny(raw, "?#"):
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "must hold no query and no fragment: leave out what begins with ? or #")}
	}
	return nil
}

// namesFile tells whether e refers to a file of certificates or a key.
func namesFile(e celery.Endpoint) bool {
	return e.TLS != nil && (e.TLS.CAFile != "" || e.TLS.CertFile != "" || e.TLS.KeyFile != "")
}
