import { ConfigurableModuleBuilder } from '@nestjs/common';
import type { VisitModuleOptions } from './options/visit-options.interface.js';

export const { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN } = new ConfigurableModuleBuilder<VisitModuleOptions>({
  moduleName: 'Visit',
})
  .setClassMethodName('forRoot')
  .setFactoryMethodName('createVisitOptions')
  .setExtras({}, (definition) => ({ ...definition, global: true }))
  .build();
