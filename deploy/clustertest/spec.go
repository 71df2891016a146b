package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// podSpec is the part of a pod's specification that "restricted" does not enforce, as
// the API server stores it.
type podSpec struct {
	AutomountServiceAccountToken *bool
	Containers                   []container
}

type container struct {
	Image                                       string
	SecurityContext                             struct{ ReadOnlyRootFilesystem bool }
	StartupProbe, LivenessProbe, ReadinessProbe *struct{}
	Resources                                   struct{ Requests, Limits map[string]string }
	Env                                         []struct{ Name, Value string }
	VolumeMounts                                []struct {
		Name     string
		ReadOnly bool
	}
}

// deliveryBuffer finds delivery.max_buffered in the configuration.
var deliveryBuffer = regexp.MustCompile(`(?m)^ *max_buffered: *(\d+) ?MiB`)

// hardened finds what Pod Security does not: it reads what the API server stored.
func hardened(p pod, config string, member bool) error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("pod %s: "+format, append([]any{p.Metadata.Name}, args...)...))
	}
	if p.Spec.AutomountServiceAccountToken == nil || *p.Spec.AutomountServiceAccountToken {
		wrong("the token of its service account is mounted; the bridge asks nothing of the API server")
	}
	for _, c := range p.Spec.Containers {
		if !c.SecurityContext.ReadOnlyRootFilesystem {
			wrong("readOnlyRootFilesystem is false")
		}
		for _, m := range c.VolumeMounts {
			if !m.ReadOnly {
				wrong("volume %s can be written to", m.Name)
			}
		}
		if member {
			for what, probe := range map[string]*struct{}{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
				if probe == nil {
					wrong("it has no %s probe", what)
				}
			}
		}
		limit, buffer := mebibytes(c.Resources.Limits["memory"]), 96
		if found := deliveryBuffer.FindStringSubmatch(config); found != nil {
			buffer, _ = strconv.Atoi(found[1])
		}
		heap := limit
		if i := slices.IndexFunc(c.Env, func(e struct{ Name, Value string }) bool { return e.Name == "GOMEMLIMIT" }); i >= 0 {
			heap = mebibytes(c.Env[i].Value)
		}
		if heap < 2*buffer || heap > limit {
			wrong("GOMEMLIMIT is %d MiB, the memory limit %d MiB and delivery.max_buffered %d MiB: the first must be between twice the last and the limit", heap, limit, buffer)
		}
	}
	return errors.Join(errs...)
}

var quantity = regexp.MustCompile(`^(\d+)(Mi|Gi)B?$`)

// mebibytes is 0 for what is no number of Mi or Gi.
func mebibytes(text string) int {
	found := quantity.FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	n, _ := strconv.Atoi(found[1])
	if found[2] == "Gi" {
		n *= 1024
	}
	return n
}
