package launch

import "strings"

// expand replaces $(NAME) by the value of that variable as Kubernetes does in
// command, args and env: $$(NAME) stands for a literal $(NAME), and a reference
// to an unknown variable stays as it is.
func expand(text string, variables map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		text = expandOne(&out, after, variables)
	}
}

// expandOne writes what a dollar sign and the text behind it stand for, and
// returns the text that is left.
func expandOne(out *strings.Builder, after string, variables map[string]string) string {
	if rest, escaped := strings.CutPrefix(after, "$"); escaped {
		out.WriteByte('$')
		return rest
	}
	rest, reference := strings.CutPrefix(after, "(")
	name, rest, closed := strings.Cut(rest, ")")
	if !reference || !closed {
		out.WriteByte('$')
		return after
	}
	if value, known := variables[name]; known {
		out.WriteString(value)
		return rest
	}
	out.WriteString("$(" + name + ")")
	return rest
}
