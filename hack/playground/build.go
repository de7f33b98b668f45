package playground

import (
	"context"
	"fmt"

	"github.com/celery-hpa/celery-hpa/hack/playground/internal/program"
)

// buildBinary builds celery-hpa as it is shipped.
func (p *Playground) buildBinary(ctx context.Context, _ Options) error {
	step := p.progress.Start("building celery-hpa")
	err := program.Build(ctx, p.layout.Binary)
	step.Done(err)
	if err != nil {
		return fmt.Errorf("build celery-hpa: %w", err)
	}
	return nil
}
