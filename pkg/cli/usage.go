package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// section is a group of flags with a title of its own in a command's help.
type section struct {
	title string
	flags *pflag.FlagSet
	// width is where lines are wrapped, in characters. The library's flags have
	// names so long that little of a narrow line would remain.
	width int
}

// newFlagSet returns a set that keeps its flags in the order in which they were
// added: the most wanted first.
func newFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

// setSections adds the flags of the sections to a command and makes its help
// show them section by section.
func setSections(cmd *cobra.Command, sections ...section) {
	for _, s := range sections {
		cmd.Flags().AddFlagSet(s.flags)
	}
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		var text strings.Builder
		fmt.Fprintf(&text, "Usage:\n  %s\n\nExamples:\n%s\n", cmd.UseLine(), cmd.Example)
		for _, s := range sections {
			fmt.Fprintf(&text, "\n%s:\n%s", s.title, s.flags.FlagUsagesWrapped(s.width))
		}
		_, err := io.WriteString(cmd.OutOrStderr(), text.String())
		return err
	})
}
