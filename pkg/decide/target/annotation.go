package target

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/celery-hpa/celery-hpa/pkg/api/v1alpha1"
)

// annotate heeds the annotations of an HPA.
func (t *Target) annotate(annotations map[string]string) error {
	var errs []error
	known := v1alpha1.HPAAnnotations()
	for key := range annotations {
		if strings.HasPrefix(key, v1alpha1.AnnotationPrefix) && !slices.Contains(known, key) {
			errs = append(errs, fmt.Errorf("there is no annotation %s; there are: %s", key, strings.Join(known, ", ")))
		}
	}
	protect, err := boolean(annotations, v1alpha1.AnnotationProtectNodes)
	t.ProtectNodes = protect
	errs = append(errs, err)
	if protect && len(t.Metrics) == 0 {
		errs = append(errs, fmt.Errorf("annotation %s has no effect: the HPA scales on no metric of celery-hpa", v1alpha1.AnnotationProtectNodes))
	}
	zero, mistakes := zeroOf(annotations)
	t.Zero = zero
	errs = append(errs, mistakes...)
	slices.SortFunc(errs, compareText)
	return errors.Join(errs...)
}

// zeroOf reads what annotations say of going to zero; what they say without asking
// for it is left out. A scale-to-zero that cannot be read asks for it: whoever wrote
// it waits for something to happen, and is to be told why nothing does.
func zeroOf(annotations map[string]string) (Zero, []error) {
	wanted, mistake := boolean(annotations, v1alpha1.AnnotationScaleToZero)
	window, windowErr := idleWindow(annotations)
	paused, pausedErr := boolean(annotations, v1alpha1.AnnotationPaused)
	errs := []error{mistake, windowErr, pausedErr}
	if _, said := annotations[v1alpha1.AnnotationScaleToZero]; !said {
		for _, key := range []string{v1alpha1.AnnotationIdleWindow, v1alpha1.AnnotationPaused} {
			if _, set := annotations[key]; set {
				errs = append(errs, fmt.Errorf(`annotation %s has no effect without %s: "true"`, key, v1alpha1.AnnotationScaleToZero))
			}
		}
	}
	if !wanted && mistake == nil {
		return Zero{}, errs
	}
	return Zero{Wanted: true, Window: window, Paused: paused}, errs
}

// idleWindow is the annotation of that name, and the default with an error.
func idleWindow(annotations map[string]string) (time.Duration, error) {
	value, set := annotations[v1alpha1.AnnotationIdleWindow]
	if !set {
		return v1alpha1.DefaultIdleWindow, nil
	}
	window, err := time.ParseDuration(value)
	switch {
	case isNumber(value):
		err = errors.New("it needs a unit, such as 5m")
	case err != nil:
		err = errors.New(`it must be a duration in hours, minutes and seconds, such as "30s", "5m" or "1h30m"`)
	case window < v1alpha1.MinIdleWindow:
		err = fmt.Errorf("it must be at least %s", v1alpha1.MinIdleWindow)
	case window > v1alpha1.MaxIdleWindow:
		err = fmt.Errorf("it must be at most %gh; to keep a target from going to zero, set %s", v1alpha1.MaxIdleWindow.Hours(), v1alpha1.AnnotationPaused)
	}
	if err != nil {
		return v1alpha1.DefaultIdleWindow, fmt.Errorf("annotation %s is %q: %w", v1alpha1.AnnotationIdleWindow, value, err)
	}
	return window, nil
}

// isNumber tells whether a text is a number and nothing else. time.ParseDuration
// takes 0 for a duration; strconv takes words like "inf" for numbers.
func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return strings.ContainsAny(text, "0123456789") && (err == nil || errors.Is(err, strconv.ErrRange))
}

// boolean is an annotation that is "true" or "false", the latter where it is not set.
func boolean(annotations map[string]string, key string) (bool, error) {
	switch value, set := annotations[key]; {
	case !set || value == "false":
		return false, nil
	case value == "true":
		return true, nil
	default:
		return false, fmt.Errorf(`annotation %s is %q: it must be "true" or "false"`, key, value)
	}
}

// compareText orders errors by what they say, nil first, so that the same mistakes
// always read the same.
func compareText(a, b error) int { return strings.Compare(text(a), text(b)) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
