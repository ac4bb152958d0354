// How each vendor signs a delivery: with its own library where it has one, else as its documentation says.

import { createHmac } from 'node:crypto'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const base64 = (secret, text) => createHmac('sha256', secret).update(text).digest('base64')
const hex = (secret, text) => createHmac('sha256', secret).update(text).digest('hex')

/**
 * The vendors, with the libraries installed in a folder. Of each:
 * `secrets`: two of its kind · `signature`: the field that proves a delivery · `signed`: what else it signs of the fields ·
 * `body(tile, event, id)`: a payload · `sign({ secret, body, at, event, id })`: the fields of a delivery, signed at a time in seconds.
 */
export async function vendors (packages) {
  const require = createRequire(join(packages, 'package.json'))
  const load = name => import(pathToFileURL(require.resolve(name)))
  const [{ Webhooks }, standard, { default: Stripe }] = await Promise.all(['@octokit/webhooks', 'standardwebhooks', 'stripe'].map(load))
  const stripe = new Stripe('sk_test_unused')
  const Webhook = standard.Webhook ?? standard.default.Webhook

  const standardWebhooks = prefix => ({
    scheme: 'standard',
    secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'C2FVsBQIhrscChlQIMV+b5sSYspob7oD'],
    signature: `${prefix}-signature`,
    signed: [`${prefix}-id`, `${prefix}-timestamp`],
    body: (tile, event) => ({ type: event, tile }),
    sign: ({ secret, body, at, id }) => ({
      [`${prefix}-id`]: id,
      [`${prefix}-timestamp`]: `${at}`,
      [`${prefix}-signature`]: new Webhook(secret).sign(id, new Date(at * 1000), body)
    })
  })

  return {
    standard: standardWebhooks('webhook'),
    svix: standardWebhooks('svix'),
    github: {
      scheme: 'github',
      secrets: ["It's a Secret to Everybody", 'another one'],
      signature: 'x-hub-signature-256',
      signed: [],
      body: tile => ({ ref: 'refs/heads/main', tile }),
      sign: async ({ secret, body, event, id }) => ({
        'x-github-event': event,
        'x-github-delivery': id,
        'x-hub-signature-256': await new Webhooks({ secret }).sign(body)
      })
    },
    stripe: {
      scheme: 'stripe',
      secrets: ['whsec_9a7b1c', 'whsec_4d2e8f'],
      signature: 'stripe-signature',
      signed: [],
      body: (tile, event, id) => ({ id, object: 'event', type: event, tile }),
      sign: ({ secret, body, at }) => ({ 'stripe-signature': stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp: at }) })
    },
    shopify: {
      scheme: 'shopify',
      secrets: ['shpss_0123', 'shpss_4567'],
      signature: 'x-shopify-hmac-sha256',
      signed: [],
      body: tile => ({ id: 820982911946154508, tile }),
      sign: ({ secret, body, event, id }) => ({
        'x-shopify-topic': event,
        'x-shopify-webhook-id': id,
        'x-shopify-shop-domain': 'shop.example',
        'x-shopify-hmac-sha256': base64(secret, body)
      })
    },
    slack: {
      scheme: 'slack',
      secrets: ['8f742231b10e8888abcd99yyyzzz85a5', 'a58zzzyyy99dcba8888e01b132247f8'],
      signature: 'x-slack-signature',
      signed: ['x-slack-request-timestamp'],
      body: (tile, event, id) => ({ type: 'event_callback', event_id: id, event: { type: event }, tile }),
      sign: ({ secret, body, at }) => ({ 'x-slack-request-timestamp': `${at}`, 'x-slack-signature': `v0=${hex(secret, `v0:${at}:${body}`)}` })
    },
    gitlab: {
      scheme: 'gitlab',
      secrets: ['a secret token', 'another token'],
      signature: 'x-gitlab-token',
      signed: [],
      signsNoBody: true,
      body: tile => ({ object_kind: 'push', tile }),
      sign: ({ secret, event, id }) => ({ 'x-gitlab-event': event, 'idempotency-key': id, 'x-gitlab-token': secret })
    }
  }
}
