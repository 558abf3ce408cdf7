package operations

import (
	"context"
	"errors"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/config"
)

var errNoAWSLogs = errors.New("the logs of Amazon's cloud are left out of this build of Pulumi")

// AWSOperationsProvider says that the logs of Amazon's cloud are left out.
func AWSOperationsProvider(context.Context, map[config.Key]string, *Resource) (Provider, error) {
	return nil, errNoAWSLogs
}

// CloudOperationsProvider says the same of a retired library over that cloud.
func CloudOperationsProvider(map[config.Key]string, *Resource) (Provider, error) {
	return nil, errNoAWSLogs
}
