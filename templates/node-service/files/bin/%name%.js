#!/usr/bin/env node
import { main } from '../src/serve.js';

process.exitCode = await main(process.argv.slice(2));
