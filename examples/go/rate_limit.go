package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/trunkline/trunkline/clients/go/trunkline"
)

// rateLimit waits as long as the error says and tries again. The gateway waits by itself if the deadline allows; here
// it does not.
func rateLimit(ctx context.Context, client *trunkline.Client, model string) error {
	spec := trunkline.Spec(model, trunkline.User("Try again."))
	user := rand.Text() // the fake model limits each user once
	spec.EndUserId = &user
	for {
		hurry, cancel := context.WithTimeout(ctx, 2*time.Second)
		completion, err := client.Complete(hurry, spec)
		cancel()
		if failed := new(trunkline.Error); errors.As(err, &failed) && failed.Kind == trunkline.ErrRateLimited {
			fmt.Printf("%s retry after %s s\n", failed.Reason, seconds(failed.RetryAfter))
			time.Sleep(failed.RetryAfter)
			continue
		}
		if err != nil {
			return err
		}
		fmt.Println(trunkline.TextOf(completion))
		return nil
	}
}

// seconds has three decimals at most and no zeros at the end.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(math.Round(d.Seconds()*1000)/1000, 'f', -1, 64)
}
