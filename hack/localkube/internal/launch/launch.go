package launch

import (
	"fmt"
	"os"
	"os/exec"

	corev1 "k8s.io/api/core/v1"
)

// Address of every pod and of its node: they share the machine's loopback.
const Address = "127.0.0.1"

// Launch is the process that stands for a pod: what its specification comes to.
type Launch struct {
	args []string
	env  []string
	dir  string
}

// Read reads a pod's first container, or says what about the pod a process cannot
// be.
func Read(pod *corev1.Pod) (Launch, error) {
	if err := unsupported(pod); err != nil {
		return Launch{}, err
	}
	container := pod.Spec.Containers[0]
	variables, env, err := environment(pod, container.Env)
	if err != nil {
		return Launch{}, err
	}
	var args []string
	for _, arg := range append(container.Command, container.Args...) {
		args = append(args, expand(arg, variables))
	}
	return Launch{args: args, env: env, dir: container.WorkingDir}, nil
}

func unsupported(pod *corev1.Pod) error {
	container := pod.Spec.Containers[0]
	refusals := []struct {
		refused bool
		reason  string
	}{
		{len(pod.Spec.Containers) > 1, "more than one container"},
		{len(pod.Spec.InitContainers) > 0, "init containers"},
		{len(container.Command) == 0, "a container without command (images are not read)"},
		{len(container.VolumeMounts) > 0, "volume mounts"},
		{container.Lifecycle != nil, "life-cycle hooks"},
		{len(container.EnvFrom) > 0, "envFrom"},
	}
	for _, refusal := range refusals {
		if refusal.refused {
			return fmt.Errorf("a pod that is a process cannot have %s", refusal.reason)
		}
	}
	return nil
}

// environment is what the container declares, for expansion, and all that the
// process receives: that, the pod's name as HOSTNAME (as container runtimes set
// it) and as POD_NAME, and the little of this process's own environment that a
// program needs to be found and to run.
func environment(pod *corev1.Pod, declared []corev1.EnvVar) (variables map[string]string, env []string, err error) {
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	env = append(env, "HOSTNAME="+pod.Name, "POD_NAME="+pod.Name)
	variables = make(map[string]string, len(declared))
	for _, variable := range declared {
		value := expand(variable.Value, variables)
		if variable.ValueFrom != nil {
			if value, err = fromField(pod, variable); err != nil {
				return nil, nil, err
			}
		}
		variables[variable.Name] = value
		env = append(env, variable.Name+"="+value)
	}
	return variables, env, nil
}

// fromField is the value of a variable that refers to a field of its pod.
func fromField(pod *corev1.Pod, variable corev1.EnvVar) (string, error) {
	reference := variable.ValueFrom.FieldRef
	if reference == nil {
		return "", fmt.Errorf("env %s: a pod that is a process can take values from fieldRef only", variable.Name)
	}
	switch reference.FieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.hostIP":
		return Address, nil
	}
	return "", fmt.Errorf("env %s: fieldRef %s is not supported for a pod that is a process", variable.Name, reference.FieldPath)
}

// Command is the process, not started, with its output going to the file.
func (l Launch) Command(output *os.File) *exec.Cmd {
	cmd := exec.Command(l.args[0], l.args[1:]...)
	cmd.Env, cmd.Dir = l.env, l.dir
	cmd.Stdout, cmd.Stderr = output, output
	return cmd
}
