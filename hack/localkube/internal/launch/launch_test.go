package launch_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/celery-hpa/celery-hpa/hack/localkube/internal/launch"
)

func pod(change func(*corev1.PodSpec)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "airflow", Name: "worker-0", UID: "1234"},
		Spec: corev1.PodSpec{
			NodeName:   "procnode",
			Containers: []corev1.Container{{Name: "worker", Command: []string{"celery"}}},
		},
	}
	change(&pod.Spec)
	return pod
}

func fieldRef(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}

// started returns the command line and the environment of the pod's process.
func started(t *testing.T, pod *corev1.Pod) (args, env []string) {
	t.Helper()
	program, err := launch.Read(pod)
	if err != nil {
		t.Fatal(err)
	}
	cmd := program.Command(os.Stdout)
	return cmd.Args, cmd.Env
}

func TestArgumentsAreExpandedAsInKubernetes(t *testing.T) {
	tests := map[string]struct{ arg, want string }{
		"a declared variable":            {"celery@$(NAME)", "celery@worker-0"},
		"twice":                          {"$(NAME)$(NAME)", "worker-0worker-0"},
		"a variable of variables":        {"$(URL)", "redis://worker-0/$(LATER)"},
		"an unknown one stays":           {"$(NOBODY)", "$(NOBODY)"},
		"an escaped one loses a dollar":  {"$$(NAME)", "$(NAME)"},
		"two escapes and a reference":    {"$$$(NAME)", "$worker-0"},
		"a lonely dollar stays":          {"5$ or $x", "5$ or $x"},
		"an open one stays":              {"$(NAME", "$(NAME"},
		"a dollar at the end stays":      {"cost$", "cost$"},
		"shell syntax is left to shells": {"${NAME}", "${NAME}"},
		"an empty name is unknown":       {"$()", "$()"},
		"nothing":                        {"", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args, _ := started(t, pod(func(spec *corev1.PodSpec) {
				spec.Containers[0].Args = []string{test.arg}
				spec.Containers[0].Env = []corev1.EnvVar{
					fieldRef("NAME", "metadata.name"),
					{Name: "URL", Value: "redis://$(NAME)/$(LATER)"},
					{Name: "LATER", Value: "too late"},
				}
			}))
			if diff := cmp.Diff([]string{"celery", test.want}, args); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzExpansionLeavesTextWithoutDollarsAlone(f *testing.F) {
	f.Add("celery@$(NAME)")
	f.Add("$$$(")
	f.Fuzz(func(t *testing.T, text string) {
		args, _ := started(t, pod(func(spec *corev1.PodSpec) { spec.Containers[0].Args = []string{text} }))
		if !strings.Contains(text, "$") && args[1] != text {
			t.Errorf("%q became %q", text, args[1])
		}
		if len(args[1]) > len(text) {
			t.Errorf("%q grew to %q without any variable", text, args[1])
		}
	})
}

func TestEnvironmentIsThePodsAndLittleElse(t *testing.T) {
	t.Setenv("PATH", "/bin")
	t.Setenv("KUBECONFIG", "/secret")
	_, env := started(t, pod(func(spec *corev1.PodSpec) {
		spec.Containers[0].Env = []corev1.EnvVar{
			fieldRef("NAMESPACE", "metadata.namespace"), fieldRef("IP", "status.podIP"), {Name: "PATH", Value: "/opt/celery/bin"},
		}
	}))
	for _, want := range []string{"HOSTNAME=worker-0", "POD_NAME=worker-0", "NAMESPACE=airflow", "IP=127.0.0.1"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing from %v", want, env)
		}
	}
	if slices.Contains(env, "KUBECONFIG=/secret") {
		t.Error("the process inherits what is none of its business")
	}
	if slices.Index(env, "PATH=/opt/celery/bin") < slices.Index(env, "PATH=/bin") {
		t.Errorf("the pod's own PATH does not win in %v", env)
	}
}

func TestWhatAProcessCannotBeIsRefused(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		"two containers":       {func(s *corev1.PodSpec) { s.Containers = append(s.Containers, corev1.Container{}) }, "more than one container"},
		"init containers":      {func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{}} }, "init containers"},
		"an image's own entry": {func(s *corev1.PodSpec) { s.Containers[0].Command = nil }, "without command"},
		"volumes":              {func(s *corev1.PodSpec) { s.Containers[0].VolumeMounts = []corev1.VolumeMount{{}} }, "volume mounts"},
		"hooks":                {func(s *corev1.PodSpec) { s.Containers[0].Lifecycle = &corev1.Lifecycle{} }, "life-cycle hooks"},
		"env from a ConfigMap": {func(s *corev1.PodSpec) { s.Containers[0].EnvFrom = []corev1.EnvFromSource{{}} }, "envFrom"},
		"one variable from a Secret": {func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}}}
		}, "env PASSWORD"},
		"an unknown field": {func(s *corev1.PodSpec) { s.Containers[0].Env = []corev1.EnvVar{fieldRef("X", "spec.magic")} }, "fieldRef spec.magic"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := launch.Read(pod(test.change))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not say %q", err, test.want)
			}
		})
	}
}
