package stream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Login says how clients prove to the brokers who they are. The zero value is no
// login. It is a value, safe to copy.
type Login struct {
	// Mechanism is empty, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or
	// AWS_MSK_IAM.
	Mechanism string
	// Username and Password are those of the user; with OAUTHBEARER the client's id
	// and secret; with AWS_MSK_IAM an access key and its secret, or both empty for
	// what the AWS SDK finds (environment, profile, role of the task or machine).
	Username string
	Password string
	// TokenURL is where OAUTHBEARER gets its tokens, by the client credentials grant
	// (RFC 6749, section 4.4).
	TokenURL string
	// Scopes are asked for with a token.
	Scopes []string
	// Extensions go to the broker with a token (RFC 7628, section 3.1), e.g.
	// logicalCluster and identityPoolId for Confluent Cloud.
	Extensions map[string]string
}

// tokenTimeout bounds a request for a token or for AWS credentials: the broker's
// connection waits for it.
const tokenTimeout = 10 * time.Second

// mechanism is how a client logs in; nil when nobody asks for it. Its error names
// the field at fault.
func (l Login) mechanism() (sasl.Mechanism, error) {
	name := strings.ToUpper(l.Mechanism)
	if name != "OAUTHBEARER" && (l.TokenURL != "" || len(l.Scopes) > 0 || len(l.Extensions) > 0) {
		return nil, errors.New("TokenURL, Scopes and Extensions go with mechanism OAUTHBEARER alone")
	}
	switch name {
	case "":
		if l.Username != "" || l.Password != "" {
			return nil, errors.New("a username or password without a mechanism")
		}
		return nil, nil
	case "AWS_MSK_IAM":
		return l.awsMechanism()
	}
	if l.Username == "" {
		return nil, errors.New("no Username given")
	}
	switch name {
	case "PLAIN":
		return plain.Auth{User: l.Username, Pass: l.Password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: l.Username, Pass: l.Password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: l.Username, Pass: l.Password}.AsSha512Mechanism(), nil
	case "OAUTHBEARER":
		return l.oauthMechanism()
	}
	return nil, fmt.Errorf("%q; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM", l.Mechanism)
}

// awsMechanism signs with keys that are asked for anew at each login, for those of
// a role change every few hours.
func (l Login) awsMechanism() (sasl.Mechanism, error) {
	if (l.Username == "") != (l.Password == "") {
		return nil, errors.New("AWS_MSK_IAM takes an access key as Username and its secret as Password, or neither")
	}
	if l.Username != "" {
		return aws.Auth{AccessKey: l.Username, SecretKey: l.Password}.AsManagedStreamingIAMMechanism(), nil
	}
	return aws.ManagedStreamingIAM(func(ctx context.Context) (aws.Auth, error) {
		ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
		defer cancel()
		found, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return aws.Auth{}, fmt.Errorf("load the AWS settings: %w", err)
		}
		keys, err := found.Credentials.Retrieve(ctx)
		if err != nil {
			return aws.Auth{}, fmt.Errorf("find AWS credentials: %w", err)
		}
		return aws.Auth{AccessKey: keys.AccessKeyID, SecretKey: keys.SecretAccessKey, SessionToken: keys.SessionToken}, nil
	}), nil
}

// oauthMechanism keeps a token until shortly before it expires, for all
// connections of a client.
func (l Login) oauthMechanism() (sasl.Mechanism, error) {
	if u, err := url.Parse(l.TokenURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("TokenURL: give the http(s) URL that answers the client credentials grant with a token")
	}
	grant := clientcredentials.Config{ClientID: l.Username, ClientSecret: l.Password, TokenURL: l.TokenURL, Scopes: l.Scopes}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: tokenTimeout})
	tokens := grant.TokenSource(ctx)
	return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
		token, err := tokens.Token()
		if err != nil {
			return oauth.Auth{}, fmt.Errorf("get a token for Kafka: %w", withoutBody(err))
		}
		return oauth.Auth{Token: token.AccessToken, Extensions: l.Extensions}, nil
	}), nil
}

// withoutBody leaves out what the token's server answered: it may quote the secret.
func withoutBody(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response != nil {
		return fmt.Errorf("the server at TokenURL answered %s %s", refused.Response.Status, refused.ErrorCode)
	}
	return err
}

// option is what a client is made with; nil without a login.
func (l Login) option() (kgo.Opt, error) {
	mechanism, err := l.mechanism()
	if err != nil || mechanism == nil {
		return nil, err
	}
	return kgo.SASL(mechanism), nil
}
