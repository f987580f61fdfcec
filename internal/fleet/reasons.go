package fleet

import (
	"fmt"

	"github.com/caesarion/caesarion/internal/event"
)

// goneSentences say to a person why a sandbox is gone, and what to do where that
// is more than to create a new one. Those below the first block are reasons
// that the driver of a cluster gives.
var goneSentences = map[string]string{
	ReasonDeleted:                   "The sandbox was deleted.",
	ReasonExpired:                   "The sandbox reached the end of its life and was deleted.",
	ReasonIdle:                      "The sandbox was not used for too long and was deleted.",
	ReasonDiskQuota:                 "The sandbox slept and was deleted because the disk space for saved sandboxes was used up.",
	ReasonUnresponsive:              "The sandbox no longer answered and was deleted.",
	string(event.ReasonOutOfMemory): "The sandbox used more memory than it may and was stopped.",
	ReasonLost:                      "The sandbox stopped unexpectedly.",

	string(event.ReasonDiskFull): "The sandbox wrote more to its disk than it may and was stopped by its node. Delete what is not needed before it fills up, or take a template with more.",
	"evicted":                    "The sandbox was stopped because its node ran short of memory, disk or processes. If it happens often, the cluster needs larger requests for sandboxes, or more nodes.",
	"node-drained":               "The sandbox was stopped because its node was emptied for maintenance. A new one starts on another node.",
	"preempted":                  "The sandbox was stopped to make room for something more important in the cluster. If it happens often, sandboxes need a higher priority class.",
	"node-lost":                  "The sandbox's node no longer answers. A new one starts on another node.",
	"node-shutdown":              "The sandbox's node was shut down. A new one starts on another node.",
	"deadline-exceeded":          "The sandbox reached the longest life that its template's deadline allows it in the cluster, and was stopped.",
	"pod-deleted":                "The sandbox's pod was deleted from the cluster, by hand or by another program.",
	"node-refused":               "The node that was chosen for the sandbox had no room for it after all.",
	"image-pull-failed":          "The sandbox's image could not be pulled. The template's image and image_pull_secrets are to be checked.",
	"pod-start-failed":           "The sandbox's first process could not be started on its node. The server's log has the node's own words.",
	"agent-install-failed":       "The agent could not be put into the sandbox. The agent's image must be of the server's version.",
}

// GoneSentence says to a person what the reason of a sandbox's end means.
func GoneSentence(reason string) string {
	if s, ok := goneSentences[reason]; ok {
		return s
	}
	return fmt.Sprintf("The sandbox stopped: %s.", reason)
}
