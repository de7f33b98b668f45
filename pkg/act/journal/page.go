package journal

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Path is where a Journal is to be served.
const Path = "/targets"

// List is what Path shows in JSON: every target.
type List struct {
	Targets []State `json:"targets"`
}

// Detail is what Path shows of one target, named by the parameters "namespace" and
// "hpa": its state and its latest decisions, the oldest first.
type Detail struct {
	State
	Decisions []Entry `json:"decisions"`
}

var _ http.Handler = (*Journal)(nil)

// ServeHTTP implements http.Handler, for GET of Path. It does no I/O but the answer,
// which shows no credential, but the names of queues and pods of all namespaces.
func (j *Journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	namespace, hpa := query.Get("namespace"), query.Get("hpa")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "targets are read by GET", http.StatusMethodNotAllowed)
	case namespace == "" && hpa == "":
		show(w, List{Targets: j.All()})
	case namespace == "" || hpa == "":
		http.Error(w, "name both namespace and hpa, or neither", http.StatusBadRequest)
	default:
		detail, known := j.detail(name{namespace, hpa})
		if !known {
			http.Error(w, fmt.Sprintf("HorizontalPodAutoscaler %s/%s asks for no scaling to zero, or there is no such HPA", namespace, hpa), http.StatusNotFound)
			return
		}
		show(w, detail)
	}
}

// show writes an answer. There is nobody to tell if it cannot be sent.
func show(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(answer)
}
