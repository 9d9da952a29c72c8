// Validates an AsyncAPI document, Avro payloads included: node validate.mjs FILE.
// Documents broken on purpose have to be refused too, or the validation would say nothing.
import { readFile } from 'node:fs/promises';
import { Parser } from '@asyncapi/parser';
import { AvroSchemaParser } from '@asyncapi/avro-schema-parser';

const parser = new Parser();
const avro = AvroSchemaParser();
parser.registerSchemaParser(avro);

async function errors(text) {
  const { document, diagnostics } = await parser.parse(text);
  const found = diagnostics.filter((diagnostic) => diagnostic.severity === 0);
  const errors = found.map(({ path, message }) => `${path.join('.')}: ${message}`);
  // The parser converts Avro payloads of components, but does not name the fault of one.
  for (const [name, { payload }] of Object.entries(JSON.parse(text).components?.messages ?? {})) {
    if (avro.getMimeTypes().includes(payload.schemaFormat)) {
      for (const { message } of await avro.validate({ data: payload.schema, path: [] })) errors.push(`${name}: ${message}`);
    }
  }
  return { document, found: errors };
}

const text = await readFile(process.argv[2], 'utf8');
const { document, found } = await errors(text);
for (const error of found) console.error(error);
if (found.length > 0) process.exit(1);

const breaks = {
  'an unknown version': (broken) => { broken.asyncapi = '3.9.9'; },
  'a message that is not there': (broken) => { delete broken.components.messages.ChangeEvent; },
  'an operation of no known action': (broken) => { broken.operations.send_events.action = 'shout'; },
  'a topic without a valid partition count': (broken) => { broken.channels.events.bindings.kafka.partitions = 0; },
  'a schema that is not Avro': (broken) => { broken.components.messages.ChangeEvent.payload.schema.fields[0].type = 'strin'; },
};
for (const [what, change] of Object.entries(breaks)) {
  const broken = JSON.parse(text);
  change(broken);
  const { found } = await errors(JSON.stringify(broken));
  if (found.length === 0) {
    console.error(`the parser takes a document with ${what}`);
    process.exit(1);
  }
}

const channels = document.channels().all();
const messages = document.messages().all();
console.log(`valid: ${channels.length} channels, ${document.operations().all().length} operations, ${messages.length} messages; ${Object.keys(breaks).length} broken ones refused`);
