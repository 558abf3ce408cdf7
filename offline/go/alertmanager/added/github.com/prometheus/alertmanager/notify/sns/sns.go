// Package sns takes the place of the messages to Amazon's SNS, with which AlertManager compiles Amazon's libraries.
package sns

import (
	"context"
	"errors"
	"log/slog"

	commoncfg "github.com/prometheus/common/config"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/types"
)

var errLeftOut = errors.New("sns_configs is left out of this build of AlertManager")

// Notifier sends nothing.
type Notifier struct{}

// New says that it is left out; AlertManager then takes no such configuration.
func New(*config.SNSConfig, *template.Template, *slog.Logger, ...commoncfg.HTTPClientOption) (*Notifier, error) {
	return nil, errLeftOut
}

// Notify says that it is left out.
func (*Notifier) Notify(context.Context, ...*types.Alert) (bool, error) { return false, errLeftOut }
